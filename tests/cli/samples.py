"""Two small tiers, a policy and a trace of one request a second, for the commands that simulate."""

from __future__ import annotations

from pathlib import Path

from click import Command
from click.testing import CliRunner, Result

TIER = """
apiVersion: inference.trimtab.dev/v1alpha1
kind: InferenceTier
metadata: {{name: {name}}}
spec:
  model: {{name: model-{name}, quality: "{quality}"}}
  slo: {{ttft: {{p95: 2s}}, itl: {{p95: 60ms}}, attainment: "0.90"}}
  variants:
  - name: one
    accelerator: {{type: L4}}
    price: {{usdPerHour: "{usd}"}}
    replicas: {{min: 1, max: {most}}}
    profile: {{itlBase: 20ms, itlPerSequence: 1ms, prefillTokensPerSecond: 10000, kvTokens: 200000, maxSequences: 64, startup: 20s}}
---
"""
POLICY = """
apiVersion: inference.trimtab.dev/v1alpha1
kind: RoutingPolicy
metadata: {name: chat}
spec:
  tiers: [{ref: small}, {ref: large}]
  objective: {qualityRetention: "0.80"}
"""


def manifests(folder: Path, *, most: int = 20, policy: str = POLICY, name: str = "manifests") -> Path:
    """A folder with both tiers and the policy."""
    path = folder / name
    path.mkdir()
    tiers = TIER.format(name="small", quality="0.60", usd="1.00", most=most) + TIER.format(
        name="large", quality="0.80", usd="8.00", most=most
    )
    (path / "all.yaml").write_text(tiers + policy)
    return path


def trace(folder: Path, *, seconds: int = 120) -> Path:
    """One request of 300 tokens in, 60 out, a second."""
    path = folder / "trace.csv"
    rows = "".join(f"{at},300,60\n" for at in range(seconds))
    path.write_text("t_s,input_tokens,output_tokens\n" + rows)
    return path


def run(command: Command, *arguments: str | Path) -> Result:
    """Call a command as the shell would."""
    return CliRunner().invoke(command, [str(argument) for argument in arguments])
