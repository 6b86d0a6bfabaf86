"""Random two-party socket programs, run plain and fused: the transcripts must agree."""
