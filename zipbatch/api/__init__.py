"""Calls for notebooks and services: thin over the same requests as the command line, with typed results.

``import zipbatch`` offers them; nothing here prints, exits or asks. Errors are those of ``zipbatch.errors``:
``UsageError`` for what was asked, ``DataError`` for what was read, ``WorkFailed`` for what could not be done.
"""
