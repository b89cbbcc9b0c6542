"""The policy pack: what a fleet must satisfy before it is applied, judged on what the program declares.

Rules are files in rules/, pure functions over plain objects; pack.py turns them into policies of Pulumi. What a stack file can
mean at all is checked earlier, by planning/rules.py.
"""
