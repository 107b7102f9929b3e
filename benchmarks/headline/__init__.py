"""Parts of bench_headline.py."""
