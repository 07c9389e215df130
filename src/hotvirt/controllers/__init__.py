"""One file a controller. Each compares desired with observed state and acts on the difference."""
