"""Lists as people have them: lines of text, tables, JSON and YAML, through one strict reader."""
