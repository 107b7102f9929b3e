"""The controllers that Trimtab is compared with, as their authors describe them; ``search`` finds their best settings.

One file for each: its arithmetic, and the source of it. All take where requests go (``routes``) as an argument.
"""

from trimtab_sim.baselines.best_gpu import BestGpu as BestGpu
from trimtab_sim.baselines.hpa import HpaOnQueue as HpaOnQueue
from trimtab_sim.baselines.hpa import HpaOnRunning as HpaOnRunning
from trimtab_sim.baselines.keda import Keda as Keda
from trimtab_sim.baselines.knative import Knative as Knative
from trimtab_sim.baselines.last_value import LastValue as LastValue
from trimtab_sim.baselines.static import StaticPeak as StaticPeak
from trimtab_sim.baselines.wva import Wva as Wva

__all__ = ["BestGpu", "HpaOnQueue", "HpaOnRunning", "Keda", "Knative", "LastValue", "StaticPeak", "Wva"]
