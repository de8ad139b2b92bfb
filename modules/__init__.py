"""
The bundled check modules, one class per file; folders named in `modulePath` join this package in front.
"""
