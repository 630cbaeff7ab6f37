"""Class-specific maps: functions of (model, layer, class)."""
