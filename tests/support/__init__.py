"""What several test modules use: programs to start, inputs to make. No test stands here."""
