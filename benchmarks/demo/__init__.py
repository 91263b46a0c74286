"""The demo: a learning rate tuned on a small model, transferred to a wide one, by two setups."""
