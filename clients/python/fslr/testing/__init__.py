"""An advisor for your own tests: it answers as you say, without a service and without a profile.

It needs the base installation only, and no test framework. For tests against a real service there
are the pytest fixtures of ``advisor.local.pytest_plugin``.
"""

from fslr.testing.advisor import FakeAdvisor, FakeSession
from fslr.testing.factors import Factors, Script, by_step
from fslr.testing.recipe import FakeRecipe

__all__ = ["Factors", "FakeAdvisor", "FakeRecipe", "FakeSession", "Script", "by_step"]
