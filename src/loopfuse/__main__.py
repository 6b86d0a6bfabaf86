"""``python -m loopfuse``."""

from loopfuse._cli import main

main()
