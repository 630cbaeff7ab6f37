"""Training: a recipe's rows and seeds become runs, each in a folder of its own. Only here is Lightning imported."""
