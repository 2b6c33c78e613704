"""What is fast: every line against backprop and against peers, in one interleaved run, with its error."""
