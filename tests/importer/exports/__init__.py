"""Files as real exporters write them, of narrow networks, and the programs that made them.

`from_keras` and `from_torch` export their networks anew where TensorFlow or PyTorch is installed
(the extra ``exporters``); ``data/`` holds what they wrote, for everybody else.
"""
