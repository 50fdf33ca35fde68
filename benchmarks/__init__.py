"""How fast, how small and how exact normviz is, against what people use instead: `make bench`.

Peers are in the extra ``bench``. Everything here is a ratio of two things that were measured in
turns in one run, since the same machine is faster or slower from one minute to the next.
"""
