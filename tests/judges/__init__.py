"""Outside judges: other people's test suites, plain beside fused."""
