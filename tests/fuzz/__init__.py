"""Coverage-guided fuzzing of everything that meets bytes of others: targets, and the corpus that it found."""
