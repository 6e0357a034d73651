"""The benchmark: a library beside other engines, on a CPU or a GPU.

`ferplus_tvm.bench.run.bench` is the whole of it, which ``ferplus-tvm bench`` calls:

    engines/  every engine behind one interface, each in a process of its own
    timing/   what is measured, and what the samples let one say
    report/   the figures as JSON, CSV, plots and a page; text for the terminal; warnings
"""
