"""Parts of HTML reports without any metric: the page frame, summary, tables, charts, pictures and players."""
