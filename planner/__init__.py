"""`tandem plan`: how many encoder replicas and decoders a load needs, by simulation."""
