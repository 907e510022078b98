"""The front door for programs: what the command line does, from Python.

`import rasura` offers what is in here (`rasura.open`, `rasura.Registry`, …) and imports it when it is asked for.
"""
