# The two commands of the README, and the daily ones. Each does all of its own set-up.
.PHONY: demo test check library

demo:
	scripts/demo

test:
	scripts/test

check:
	scripts/check

library:
	scripts/build-variant dev
