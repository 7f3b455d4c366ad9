"""Forecasters of single series: Toto and Kronos, with published weights or trained here."""
