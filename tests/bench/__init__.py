"""What `make bench` measures: figures as ratios against a bare peer in the same run, never as tests."""
