"""The operator: observe, plan, guard, render, apply, report. Only this package talks to a cluster."""
