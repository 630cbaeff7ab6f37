"""Protocols: (model, data) -> plain numbers or arrays; one protocol a file."""
