"""The commands: parse the options, call the library, report. Heavy packages are imported once the options are sound."""
