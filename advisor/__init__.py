"""The advisor: a stateless service that turns measured unit rates into multipliers."""
