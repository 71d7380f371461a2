"""The scripts under examples/ do what they say."""
