"""Tables as shop systems export them: rows become products, pictures and listings, whatever the columns are called."""
