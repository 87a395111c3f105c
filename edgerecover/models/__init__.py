"""From the files that users have to a checked student and teacher.

The rooms, in the order in which data passes; each imports only from those before it, except that `network` knows no
file at all:

    network   what a network is: norms, linear layers, outputs, zeros, cost
    read      a file → tensors by name, masks, and what the file says of itself; nothing in it runs
    onnx      an ONNX file → its weights and zeros; nothing in it runs
    name      flags, TOML files, cards and tensors → which architecture it is, and whether its code may run
    build     an architecture and tensors → a network with these weights
    pair      a student and its teacher → `Models`, checked against each other; commands begin here
"""
