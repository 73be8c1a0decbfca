"""What people read: terminal tables and pages made from result files."""
