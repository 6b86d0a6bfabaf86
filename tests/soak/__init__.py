"""Mixed real programs, and very many connections: docs/reliability/soak.md."""
