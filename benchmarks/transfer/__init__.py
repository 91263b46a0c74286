"""How a learning rate tuned on a small model does on a big one: plain, advised, or otherwise."""
