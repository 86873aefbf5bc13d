from chronoprep.cli import main

main()
