"""`delrec app`: a page in the browser on which a finished run can be tried."""
