"""Average precision and area under the ROC curve from their definitions, one class at a time."""


def average_precision(scores, labels):
    """Σ (R_n − R_{n−1}) P_n, with a threshold at each score from the highest down."""
    total, recall = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        taken = [label for score, label in zip(scores, labels, strict=True) if score >= threshold]
        reached = sum(taken) / sum(labels)
        total += (reached - recall) * sum(taken) / len(taken)
        recall = reached
    return total


def area_under_roc(scores, labels):
    """The probability that an image with the class has a higher score than one without; a tie counts half."""
    positive = [score for score, label in zip(scores, labels, strict=True) if label]
    negative = [score for score, label in zip(scores, labels, strict=True) if not label]
    won = sum((p > n) + 0.5 * (p == n) for p in positive for n in negative)
    return won / (len(positive) * len(negative))
