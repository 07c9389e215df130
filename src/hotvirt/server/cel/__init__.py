"""CEL, the Common Expression Language, with the environment that Kubernetes gives its rules. Knows no object store.

    engine      compiles an expression against types, evaluates it: the only part that touches the library
    syntax      the compiled expression as a tree
    cost        how expensive an expression can get on values of a certain size: the guard against hostile ones
    types       a structural schema as types for the compiler, and as a conversion of documents into CEL values
    functions   Kubernetes' function libraries, by table; quantities, formats, addresses, regex, texts: what they do

The library (Google's cel-cpp) takes 12 MiB when loaded, so nothing here is imported before the first expression.
Everything is synchronous and runs on the event loop; evaluations are short because `cost` refuses the others.
"""
