"""How results are shown: one table, one look of figures, one page; nothing is computed here."""
