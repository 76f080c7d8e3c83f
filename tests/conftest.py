"""What holds for every test."""

from hypothesis import HealthCheck, settings

# A shared machine may be busy: slowness is no failure here, the run's own time limit guards that.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")
