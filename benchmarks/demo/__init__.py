"""The demo: a learning rate tuned on a small model, transferred to one 8 times wider."""
