"""Pictures by address: which addresses may be fetched, the file each one becomes, and the fetching itself."""
