"""What ``trimtab validate`` checks beyond reading the files."""
