"""How sure a comparison is: intervals, paired tests, many comparisons at once, tables. Plain numbers in and out."""
