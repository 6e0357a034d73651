"""Latency beside other engines: measured in turns, each alone on the machine, with the evidence.

`ferplus_tvm.bench.run.bench` is the whole of it; what ``ferplus-tvm bench`` does.
"""
