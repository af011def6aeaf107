"""Histories of an imaginary fleet, with what is to be found in them known beforehand."""
