"""What holds for every test."""

import os

from hypothesis import HealthCheck, settings

# A shared machine may be busy: slowness is no failure here, the run's own time limit guards that.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

# Before any test module is collected: whoever imports JAX first decides. Eight devices of the CPU,
# also for the commands that tests start.
os.environ["JAX_PLATFORMS"] = "cpu"
_DEVICES = "--xla_force_host_platform_device_count=8"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_DEVICES}".strip()
