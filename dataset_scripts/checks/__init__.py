"""What is odd in a dataset of posts, and which release of Twitter-2015 or Twitter-2017 it is."""
