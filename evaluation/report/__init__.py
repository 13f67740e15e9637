"""What a reader looks at: tables, figures, film strips and the HTML report."""
