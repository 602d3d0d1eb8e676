"""Plans, trainings and what they are made of."""
