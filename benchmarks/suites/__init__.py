"""What benchmarks/run.py is made of: plan, processes, records, pages."""
